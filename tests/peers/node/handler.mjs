// Selldone's order webhook on Lambda, as one would write it for Node.js: verify, store, publish, mark.
import { createHash, timingSafeEqual } from "node:crypto";
import { DynamoDBClient, PutItemCommand, UpdateItemCommand } from "@aws-sdk/client-dynamodb";
import { GetSecretValueCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import { PublishCommand, SNSClient } from "@aws-sdk/client-sns";

const dynamodb = new DynamoDBClient({});
const sns = new SNSClient({});
const secretsManager = new SecretsManagerClient({});

const TABLE = process.env.TABLE_NAME;
const TOPIC = process.env.TOPIC_ARN;
const TYPES = { CheckoutOrder: "order.created", PaymentOrder: "order.paid", ConfirmOrder: "order.confirmed" };
const secret = await secretsManager.send(new GetSecretValueCommand({ SecretId: process.env.SECRETS }));
const shops = JSON.parse(secret.SecretString).shops;

const answer = (statusCode, body) => ({
    statusCode,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
});
const digest = (text) => createHash("sha256").update(text).digest();
const same = (one, other) => timingSafeEqual(digest(one), digest(other));

function normalize(eventId, shop, body) {
    const basket = body.basket;
    const order = {
        id: String(basket.id),
        provider_status: basket.delivery_state,
        currency: basket.currency,
        totals: { total: String(basket.price) },
        customer: basket.receiver_info,
        items: basket.items ?? [],
    };
    return {
        specversion: "1.0",
        id: eventId,
        source: `/selldone/${shop}`,
        type: TYPES[body.action] ?? "order.updated",
        subject: order.id,
        time: basket.updated_at,
        datacontenttype: "application/json",
        data: { provider: "selldone", shop, provider_event: body.action, order },
    };
}

export async function handler(event) {
    const shop = event.pathParameters.shop;
    const token = event.queryStringParameters?.token ?? "";
    if (!(shops[shop]?.tokens ?? []).some((known) => same(known, token))) {
        return answer(401, { title: "Unauthorized" });
    }
    const body = JSON.parse(event.body);
    const identity = ["selldone", shop, body.action, String(body.basket.id), body.basket.updated_at];
    const eventId = digest(JSON.stringify(identity)).toString("hex");
    const normalized = normalize(eventId, shop, body);
    const message = JSON.stringify(normalized);
    const key = { pk: { S: eventId }, sk: { S: "head" } };
    try {
        await dynamodb.send(new PutItemCommand({
            TableName: TABLE,
            Item: {
                ...key,
                state: { S: "pending" },
                type: { S: normalized.type },
                received_at: { S: new Date().toISOString() },
                payload: { S: event.body },
                event: { S: message },
            },
            ConditionExpression: "attribute_not_exists(pk)",
        }));
    } catch (error) {
        if (error.name === "ConditionalCheckFailedException") {
            return answer(200, { status: "duplicate", event_id: eventId });
        }
        throw error;
    }
    const attribute = (value) => ({ DataType: "String", StringValue: value });
    await sns.send(new PublishCommand({
        TopicArn: TOPIC,
        Message: message,
        MessageAttributes: {
            type: attribute(normalized.type),
            provider: attribute("selldone"),
            shop: attribute(shop),
        },
    }));
    await dynamodb.send(new UpdateItemCommand({
        TableName: TABLE,
        Key: key,
        UpdateExpression: "SET #state = :published, published_at = :now",
        ConditionExpression: "#state = :pending",
        ExpressionAttributeNames: { "#state": "state" },
        ExpressionAttributeValues: {
            ":published": { S: "published" },
            ":pending": { S: "pending" },
            ":now": { S: new Date().toISOString() },
        },
    }));
    return answer(200, { status: "accepted", event_id: eventId });
}
