"""Selldone's order webhook on Lambda, as one would write it in Python: verify, store, publish, mark."""

import hashlib
import hmac
import json
import os
from datetime import datetime, timezone

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

config = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "max_attempts": 3})
dynamodb = boto3.client("dynamodb", config=config)
sns = boto3.client("sns", config=config)
secrets_manager = boto3.client("secretsmanager", config=config)

TABLE = os.environ["TABLE_NAME"]
TOPIC = os.environ["TOPIC_ARN"]
SHOPS = json.loads(secrets_manager.get_secret_value(SecretId=os.environ["SECRETS"])["SecretString"])["shops"]
TYPES = {"CheckoutOrder": "order.created", "PaymentOrder": "order.paid", "ConfirmOrder": "order.confirmed"}


def answer(status, body):
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def normalize(event_id, shop, body):
    basket = body["basket"]
    order = {
        "id": str(basket["id"]),
        "provider_status": basket.get("delivery_state"),
        "currency": basket.get("currency"),
        "totals": {"total": str(basket.get("price"))},
        "customer": basket.get("receiver_info"),
        "items": basket.get("items", []),
    }
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": f"/selldone/{shop}",
        "type": TYPES.get(body.get("action"), "order.updated"),
        "subject": order["id"],
        "time": basket.get("updated_at"),
        "datacontenttype": "application/json",
        "data": {"provider": "selldone", "shop": shop, "provider_event": body.get("action"), "order": order},
    }


def handler(event, context):
    shop = event["pathParameters"]["shop"]
    token = (event.get("queryStringParameters") or {}).get("token", "")
    tokens = SHOPS.get(shop, {}).get("tokens", [])
    if not any(hmac.compare_digest(token.encode(), known.encode()) for known in tokens):
        return answer(401, {"title": "Unauthorized"})
    text = event["body"]
    body = json.loads(text)
    basket = body["basket"]
    identity = json.dumps(["selldone", shop, body.get("action"), str(basket["id"]), basket.get("updated_at")])
    event_id = hashlib.sha256(identity.encode()).hexdigest()
    normalized = normalize(event_id, shop, body)
    message = json.dumps(normalized)
    key = {"pk": {"S": event_id}, "sk": {"S": "head"}}
    try:
        dynamodb.put_item(
            TableName=TABLE,
            Item=key
            | {
                "state": {"S": "pending"},
                "type": {"S": normalized["type"]},
                "received_at": {"S": now()},
                "payload": {"S": text},
                "event": {"S": message},
            },
            ConditionExpression="attribute_not_exists(pk)",
        )
    except ClientError as error:
        if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
            return answer(200, {"status": "duplicate", "event_id": event_id})
        raise
    sns.publish(
        TopicArn=TOPIC,
        Message=message,
        MessageAttributes={
            "type": {"DataType": "String", "StringValue": normalized["type"]},
            "provider": {"DataType": "String", "StringValue": "selldone"},
            "shop": {"DataType": "String", "StringValue": shop},
        },
    )
    dynamodb.update_item(
        TableName=TABLE,
        Key=key,
        UpdateExpression="SET #state = :published, published_at = :now",
        ConditionExpression="#state = :pending",
        ExpressionAttributeNames={"#state": "state"},
        ExpressionAttributeValues={
            ":published": {"S": "published"},
            ":pending": {"S": "pending"},
            ":now": {"S": now()},
        },
    )
    return answer(200, {"status": "accepted", "event_id": event_id})
