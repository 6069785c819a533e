#!/usr/bin/env python3
"""Deploys the output of `sam build` into ministack, and tests the deployed stack: tests/deploy/deploy.py

ministack emulates CloudFormation, Lambda, DynamoDB, SNS, SQS and the other services of the template in one local
process. It must be installed for the Python that runs this script (requirements.txt); `sam` and the AWS CLI must be
on the path.

The template is the built one, except that the AWS endpoints, which it declares empty for this purpose, point to
ministack, and the APIs of Snipcart and Cartum to stand-ins. Four things are not tested: gradual deployment, because ministack has no
CodeDeploy; the topic's key, which ministack ignores; metric math, which it does not support, so that an alarm on
several functions watches one metric here; and the routes of the HTTP API, which it does not create. Functions are
invoked with API Gateway's events instead, and .ci/routes.py tests the routes with `sam local start-api`.
"""

import base64
import concurrent.futures
import contextlib
import datetime
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import zoneinfo

import boto3
import botocore.config
import botocore.exceptions
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILT = ROOT / "target" / "ci" / "x86_64"
STACK = "order-webhooks"
PROVIDERS = ["aboutyou", "cartum", "deeple", "selldone", "snipcart"]
# The alarms that exist once for all providers.
ALARMS = """
throttles slow misconfigured wrong-credentials refused unavailable snipcart-unavailable api-5xx outbox-age expiring-quarantined
dead-letters redrive-errors redrive-dead-letters
""".split()
TOKENS = {"tokens": ["local-development-token"]}
SECRETS = {
    "aboutyou": TOKENS,
    "cartum": TOKENS,
    "deeple": {"pid": "local-pid", "secrets": ["local-secret"]},
    "selldone": TOKENS,
    "snipcart": {"api_keys": ["local-key"]},
}
CARTUM_API = {"domain": "shop.example.com", "login": "local-login", "password": "local-password"}
# The events in events/ have old signed timestamps.
PARAMETERS = {"Architecture": "x86_64", "DeepleTimestampMaxAgeSeconds": "999999999"}
WRONG = [
    ("EnableSelldone", "yes"),
    ("SelldoneSecretArn", "order-webhooks/selldone"),
    ("SecretsKmsKeyArn", "alias/aws/secretsmanager"),
    ("TopicKmsKeyArn", "some-key"),
    ("SubscriberAccount", "12345"),
    ("AlarmEmail", "nobody"),
    ("AlertPeriodMinutes", "0"),
    ("AlertPeriodMinutes", "1441"),
    ("SilenceHours", "8761"),
    ("SilenceHours", "1.5"),
    ("RefusedThreshold", "0"),
    ("UnavailableThreshold", "-1"),
    ("ReconcileSelldone", "yes"),
    ("ReconcileCartum", "1"),
    ("ReconcileAboutyou", "on"),
    ("ReconcileSnipcart", "yes"),
    ("ReconcileEveryMinutes", "9"),
    ("ReconcileLookbackHours", "0"),
    ("ReconcileDailyLookbackDays", "366"),
    ("AutoResubscribe", "yes"),
    ("ReconcileAgeMinutes", "29"),
    ("SlowMilliseconds", "99"),
    ("OutboxAgeSeconds", "1"),
    ("QueueAgeSeconds", "9"),
    ("ThrottlingRate", "0"),
    ("ThrottlingBurst", "0"),
    ("MaxBodyBytes", "5 MB"),
    ("PublishUnmapped", "no"),
    ("PublishState", "no"),
    ("RedriveFanOut", "3"),
    ("MaxMessageBytes", "262143"),
    ("MaxMessageBytes", "1048577"),
    ("OrderRetentionDays", "-1"),
    ("UnpublishedRetentionDays", "36501"),
    ("DeduplicationDays", "2"),
    ("CartumTimeZone", "Kyiv; rm"),
    ("DeepleCurrency", "baht"),
    ("DeepleTimestampMaxAgeSeconds", "-1"),
    ("DeepleTimestampMaxAheadSeconds", "0"),
    ("SnipcartApiUrl", "http://app.snipcart.com/api"),
    ("Architecture", "i386"),
    ("MemorySize", "191"),
    ("LogRetentionDays", "2"),
    ("Tracing", "on"),
    ("GradualDeployment", "1"),
    ("GradualDeploymentType", "Sometimes"),
]

failures = 0


def check(what: str, wrong: object) -> None:
    """Prints the result of a check. If `wrong` is true, it describes the fault."""
    global failures
    failures += bool(wrong)
    print(f"failed {what}: {wrong}" if wrong else f"ok     {what}", flush=True)


class Provider(http.server.BaseHTTPRequestHandler):
    """Answers with a stand-in for a provider's API."""

    def answer(self, status: int, answer: dict) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Snipcart(Provider):
    """A stand-in for Snipcart's API that knows the key and the request token of events/snipcart, and lists `orders`."""

    orders: list[dict] = []

    def do_GET(self) -> None:
        key = "Basic " + base64.b64encode(b"local-key:").decode()
        if self.headers.get("authorization") != key:
            self.answer(401, {})
        elif self.path == "/api/requestvalidation/local-request-token":
            self.answer(200, {})
        elif self.path.startswith("/api/orders?"):
            offset = int(urllib.parse.parse_qs(self.path.partition("?")[2]).get("offset", ["0"])[0])
            page = self.orders[offset:]
            self.answer(200, {"totalItems": len(self.orders), "offset": offset, "limit": len(page), "items": page})
        else:
            self.answer(404, {})


class Cartum(Provider):
    """A stand-in for Cartum's API that lists `orders`, and keeps the URLs that are subscribed."""

    orders: list[dict] = []
    subscribed: list[str] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/api/auth/":
            right = (asked["login"], asked["password"]) == (CARTUM_API["login"], CARTUM_API["password"])
            self.answer(200, {"status": "OK", "response": {"token": "local-api-token"}} if right else {"status": "AUTHORIZATION_ERROR"})
        elif asked["token"] != "local-api-token":
            self.answer(200, {"status": "UNAUTHORIZED"})
        elif self.path == "/api/orders/get/":
            self.answer(200, {"status": "OK", "response": {"orders": self.orders[int(asked.get("offset", 0)) :]}})
        elif self.path == "/api/hooks/subscribe/":
            self.subscribed.append(asked["target_url"])
            self.answer(201, {"id": len(self.subscribed)})
        else:
            self.answer(404, {})


def serve(provider: type[Provider]) -> str:
    """Serves a stand-in and returns its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def ministack(scratch: pathlib.Path):
    """Runs a ministack and yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = os.environ | {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "AWS_ENDPOINT_URL": url,
        "S3_DATA_DIR": str(scratch / "s3"),
    }
    log = (scratch / "ministack.log").open("w+b")
    program = pathlib.Path(sys.prefix) / "bin" / "ministack"
    process = subprocess.Popen([program], env=settings, stdout=log, stderr=subprocess.STDOUT, cwd=scratch)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            raise SystemExit(f"ministack does not listen on port {port}")
        if process.poll() is not None:
            raise SystemExit("ministack has exited: " + (scratch / "ministack.log").read_text()[-2000:])
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


class Template(yaml.SafeLoader):
    """Reads a short tag of CloudFormation, such as !Ref, as its full function."""


def function(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict:
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value.split(".", 1) if tag == "GetAtt" else value}


Template.add_multi_constructor("!", function)


class WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def without_metric_math(template: dict) -> dict:
    """Lets an alarm with metric math watch the first metric's name without dimensions."""
    for resource in template["Resources"].values():
        if "Metrics" in resource.get("Properties", {}):
            properties = resource["Properties"]
            _, query, _ = next(metric["Fn::If"] for metric in properties.pop("Metrics") if "Fn::If" in metric)
            metric, statistic = query["MetricStat"]["Metric"], query["MetricStat"]["Stat"]
            properties |= {"Namespace": metric["Namespace"], "MetricName": metric["MetricName"], "Period": query["MetricStat"]["Period"]}
            properties["Statistic" if statistic == "Sum" else "ExtendedStatistic"] = statistic
    return template


class Deployment:
    """A deployed stack in ministack."""

    def __init__(self, url: str, snipcart: str, cartum: str):
        os.environ |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "SAM_CLI_TELEMETRY": "0",
        }
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            os.environ.pop(name, None)
        self.url, self.snipcart, self.cartum = url, snipcart, cartum
        self.template = self.for_ministack(BUILT / "template.yaml")
        self.outputs: dict[str, str] = {}

    def for_ministack(self, path: pathlib.Path) -> pathlib.Path:
        """Writes a copy of a template that ministack can deploy, with the functions in BUILT, and returns its path."""
        template = without_metric_math(yaml.load(path.read_text(), Template))
        variables = template["Globals"]["Function"]["Environment"]["Variables"]
        for service in ("DYNAMODB", "SNS", "SECRETS_MANAGER"):
            if variables[f"AWS_ENDPOINT_URL_{service}"]:
                raise SystemExit(f"{path} declares no empty AWS_ENDPOINT_URL_{service}")
            variables[f"AWS_ENDPOINT_URL_{service}"] = self.url
        for name, resource in template["Resources"].items():
            if resource["Type"] == "AWS::Serverless::Function":
                resource["Properties"]["CodeUri"] = name
        # The parameter of the template accepts only https.
        variables = template["Resources"]["SnipcartFunction"]["Properties"]["Environment"]["Variables"]
        if variables["SNIPCART_API_URL"] != {"Ref": "SnipcartApiUrl"}:
            raise SystemExit(f"{path} has no SNIPCART_API_URL")
        variables["SNIPCART_API_URL"] = self.snipcart
        # The version before has no reconciliation.
        if "ReconcileFunction" in template["Resources"]:
            variables = template["Resources"]["ReconcileFunction"]["Properties"]["Environment"]["Variables"]
            variables |= {"SNIPCART_API_URL": self.snipcart, "CARTUM_API_URL": self.cartum}
        written = BUILT / f"{path.stem}.ministack.yaml"
        written.write_text(yaml.dump(template, Dumper=WithoutAliases, sort_keys=False))
        return written

    def client(self, service: str):
        config = botocore.config.Config(read_timeout=120, retries={"max_attempts": 0}, max_pool_connections=16)
        return boto3.client(service, config=config)

    def deploy(self, template: pathlib.Path | None = None, **parameters: str) -> str:
        """Runs `sam deploy` with samconfig.toml, and returns its output."""
        command = ["sam", "deploy", "--template-file", str(template or self.template), "--config-file", str(ROOT / "samconfig.toml")]
        command += ["--no-confirm-changeset", "--no-progressbar", "--parameter-overrides"]
        command += [f"{name}={value}" for name, value in (PARAMETERS | parameters).items()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, cwd=ROOT)
        output = done.stdout + done.stderr
        if done.returncode:
            raise SystemExit(f"sam deploy failed:\n{output[-6000:]}")
        stack = self.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        return output

    def listed(self) -> list[dict]:
        """Returns the summaries of the stack's resources."""
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
        listed = (resource for page in pages for resource in page["StackResourceSummaries"])
        return [resource for resource in listed if resource["ResourceStatus"] != "DELETE_COMPLETE"]

    def resources(self) -> dict[str, str]:
        """Returns the physical id of each resource by its logical id."""
        return {resource["LogicalResourceId"]: resource.get("PhysicalResourceId", "") for resource in self.listed()}

    def types(self) -> dict[str, str]:
        """Returns the type of each resource by its logical id."""
        return {resource["LogicalResourceId"]: resource["ResourceType"] for resource in self.listed()}

    def invoke(self, function: str, payload: dict) -> dict:
        """Invokes a function or its alias, and returns the answer."""
        answer = self.client("lambda").invoke(FunctionName=function, Payload=json.dumps(payload))
        body = json.load(answer["Payload"])
        if "FunctionError" in answer:
            raise RuntimeError(f"{function} failed: {body}")
        return body


def events(provider: str) -> list[pathlib.Path]:
    return sorted(path for path in (ROOT / "events" / provider).glob("*.json") if not path.name.endswith(".normalized.json"))


def send_event(deployment: Deployment, function: str, event: pathlib.Path) -> tuple[int, dict]:
    answer = deployment.invoke(function, json.loads(event.read_text()))
    return answer["statusCode"], json.loads(answer["body"])


def receive_messages(deployment: Deployment, expected: int, queue: str = "") -> list[dict]:
    """Receives messages of the deployed queue, or of another, until the expected number has arrived and it is empty."""
    sqs, found = deployment.client("sqs"), []
    queue = queue or deployment.outputs["Queue"]
    until = time.monotonic() + 60
    while time.monotonic() < until:
        wait = 1 if len(found) < expected else 0
        got = sqs.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=wait
        ).get("Messages", [])
        for message in got:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        found += [json.loads(message["Body"]) for message in got]
        if not got and len(found) >= expected:
            break
    return found


def check_resources(deployment: Deployment) -> None:
    for provider in PROVIDERS:
        name = provider.capitalize()
        query = "?token={token}" if provider in ("aboutyou", "cartum", "selldone") else ""
        url = deployment.outputs.get(f"{name}Webhook", "none")
        pattern = rf"https://[^/]+/webhooks/{provider}/\{{shop\}}{re.escape(query)}"
        check(f"the URL for {provider}", None if re.fullmatch(pattern, url) else url)
    table = deployment.client("dynamodb").describe_table(TableName=deployment.outputs["Table"])["Table"]
    check("the table is protected from deletion", None if table.get("DeletionProtectionEnabled") else "it is not")
    indexes = {index["IndexName"] for index in table["GlobalSecondaryIndexes"]}
    check("the table's indexes", indexes ^ {"by_order", "work", "by_hour"})
    alarms = deployment.client("cloudwatch").describe_alarms(MaxRecords=100)["MetricAlarms"]
    expected = {f"{STACK}-{p}-{a}" for p in PROVIDERS for a in ("errors", "mapping-failed")}
    expected |= {f"{STACK}-{a}" for a in ALARMS}
    check("the alarms", {alarm["AlarmName"] for alarm in alarms} ^ expected)
    unclear = [a["AlarmName"] for a in alarms if a["AlarmActions"] != [deployment.outputs["AlarmTopic"]] or len(a.get("AlarmDescription", "")) < 80]
    check("each alarm notifies the alarm topic and has a description", unclear)
    # CloudWatch's limits.
    long = [a["AlarmName"] for a in alarms if a["Period"] * a["EvaluationPeriods"] > (604800 if a["Period"] >= 3600 else 86400)]
    check("each alarm stays within CloudWatch's limits", long)
    body = deployment.client("cloudwatch").get_dashboard(DashboardName=f"{STACK}-us-east-1")["DashboardBody"]
    shown = json.loads(body)["widgets"]
    listed = next(widget for widget in shown if widget["type"] == "alarm")["properties"]["alarms"]
    check("the dashboard shows every alarm", {arn.split(":alarm:")[1] for arn in listed} ^ expected)
    left = re.findall(r"\$\{(?!PROP)[^}]*\}", body)
    check("the dashboard has no unresolved placeholders", left)


def check_function_parameters(deployment: Deployment) -> None:
    """Checks PARAMETERS of each function: SAM publishes no new version for a parameter that is not listed."""
    template = yaml.safe_load(deployment.template.read_text())

    def refs(node: object) -> set[str]:
        if isinstance(node, dict):
            named = {node["Ref"]} if isinstance(node.get("Ref"), str) else set()
            # An Fn::If names a condition, whose parameters count too.
            if isinstance(node.get("Fn::If"), list):
                named |= refs(template["Conditions"][node["Fn::If"][0]])
            if isinstance(node.get("Condition"), str) and len(node) == 1:
                named |= refs(template["Conditions"][node["Condition"]])
            return named.union(*map(refs, node.values()))
        return set().union(*map(refs, node)) if isinstance(node, list) else set()

    # A new architecture changes the code too, and the other two do not change the function.
    elsewhere = {"Architecture", "GradualDeployment", "GradualDeploymentType"}
    forgotten = {}
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            properties = {key: value for key, value in resource["Properties"].items() if key != "Events"}
            listed = refs(properties["Environment"]["Variables"].pop("PARAMETERS"))
            # A function's own value replaces that of Globals, but for its variables, which are added.
            shared = {key: value for key, value in template["Globals"]["Function"].items() if key == "Environment" or key not in properties}
            seen = (refs(properties) | refs(shared)) & set(template["Parameters"])
            forgotten |= {name: left for left in [{one for one in seen - elsewhere - listed if not one.startswith("Enable")}] if left}
    check("PARAMETERS of each function lists every parameter that the function depends on", forgotten)


def check_schedules(deployment: Deployment) -> None:
    scheduler = deployment.client("scheduler")
    schedules = [scheduler.get_schedule(Name=found["Name"]) for found in scheduler.list_schedules()["Schedules"]]
    targets = [schedule["Target"] for schedule in schedules]
    tasks = sorted(target["Input"] for target in targets)
    check("a schedule for each regular task", None if tasks == ['{"alert":{}}', '{"redrive":{}}'] else tasks)
    check("each schedule invokes redrive's alias", {target["Arn"] for target in targets} ^ {deployment.outputs["Redrive"]})
    check("each schedule has a dead-letter queue", [target for target in targets if not target.get("DeadLetterConfig", {}).get("Arn")])


def send_once_secret_is_read(deployment: Deployment, alias: str, event: pathlib.Path) -> tuple[int, dict]:
    """Sends an event until the environment has read the new secret, which it does at most every 5 seconds."""
    until = time.monotonic() + 30
    while True:
        status, body = send_event(deployment, alias, event)
        if status != 500 or time.monotonic() > until:
            return status, body
        time.sleep(0.5)


def check_deliveries(deployment: Deployment, resources: dict[str, str]) -> dict[str, pathlib.Path]:
    """Sends every event to its deployed function, and returns the accepted ones by their id."""
    calls = [(provider, event) for provider in PROVIDERS for event in events(provider)]
    aliases = {provider: resources[f"{provider.capitalize()}FunctionAliaslive"] for provider in PROVIDERS}
    accepted, wrong = {}, []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda call: send_once_secret_is_read(deployment, aliases[call[0]], call[1]), calls)
        for (_, event), (status, body) in zip(calls, answers, strict=True):
            statuses = {"accepted"} if event.with_suffix(".normalized.json").exists() else {"unsupported", "quarantined"}
            if status != 200 or body.get("status") not in statuses:
                wrong.append(f"{event.relative_to(ROOT)}: {status} {body}")
            elif body["status"] == "accepted":
                accepted[body["event_id"]] = event
    check(f"{len(calls)} events, each with the expected answer", "\n".join(wrong))
    event = ROOT / "events" / "selldone" / "checkout-order.json"
    answer = send_event(deployment, aliases["selldone"], event)
    check("the same event again is a duplicate", None if answer[1].get("status") == "duplicate" else answer)
    forged = json.loads(event.read_text())
    forged["rawQueryString"] = "token=another-token-of-some-length"
    answer = deployment.invoke(aliases["selldone"], forged)
    check("an event with a wrong token is refused", None if answer["statusCode"] == 401 else answer)
    return accepted


def check_storage(deployment: Deployment, accepted: dict[str, pathlib.Path]) -> None:
    dynamodb = deployment.client("dynamodb")
    states: dict[str, int] = {}
    for event_id in accepted:
        found = dynamodb.get_item(
            TableName=deployment.outputs["Table"], Key={"pk": {"S": event_id}, "sk": {"S": "head"}}, ConsistentRead=True
        ).get("Item", {})
        state = found.get("state", {}).get("S", "missing")
        states[state] = states.get(state, 0) + 1
    check(f"{len(accepted)} items in the deployed table, published", None if states == {"published": len(accepted)} else states)
    messages = receive_messages(deployment, len(accepted))
    published = [json.loads(message["Message"])["id"] for message in messages]
    check(f"{len(accepted)} messages in the deployed queue", set(published) ^ set(accepted) or len(published) - len(accepted))


def check_redrive(deployment: Deployment, accepted: dict[str, pathlib.Path]) -> None:
    redrive, table = deployment.outputs["Redrive"], deployment.outputs["Table"]
    answer = deployment.invoke(redrive, {"redrive": {}})
    check("redrive finds an empty outbox", None if answer.get("done") and not answer.get("published") else answer)
    event_id = next(iter(accepted))
    answer = deployment.invoke(redrive, {"get": {"event_id": event_id}})
    check("redrive shows an event", None if event_id in json.dumps(answer) else answer)
    # The state that a function leaves when it is killed after it has stored the event.
    deployment.client("dynamodb").update_item(
        TableName=table,
        Key={"pk": {"S": event_id}, "sk": {"S": "head"}},
        UpdateExpression="SET #s = :p, #w = :w, next_attempt_at = :t",
        ExpressionAttributeNames={"#s": "state", "#w": "work"},
        ExpressionAttributeValues={
            ":p": {"S": "pending"},
            ":w": {"S": "pending#0"},
            ":t": {"S": "2020-01-01T00:00:00.000000Z"},
        },
    )
    answer = deployment.invoke(redrive, {"redrive": {}})
    check("redrive publishes a pending event", None if answer.get("published") == 1 else answer)
    ids = [json.loads(message["Message"])["id"] for message in receive_messages(deployment, 1)]
    check("the message of the event arrives", None if ids == [event_id] else ids)


def check_alerts(deployment: Deployment) -> None:
    """Checks that the notes of the deployed functions become alerts on the alarm topic."""
    sqs = deployment.client("sqs")
    queue = sqs.create_queue(QueueName="alerts")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    deployment.client("sns").subscribe(TopicArn=deployment.outputs["AlarmTopic"], Protocol="sqs", Endpoint=arn)
    answer = deployment.invoke(deployment.outputs["Redrive"], {"alert": {}})
    check("redrive publishes alerts", None if answer.get("sent") else answer)
    messages = receive_messages(deployment, answer.get("sent", 1), queue)
    unnamed = [m["Subject"] for m in messages if not m["Subject"].startswith(f"{STACK}: ")]
    check("the subject of each alert names the stack", unnamed or (None if messages else "there is no alert"))
    check("alerts name the command to run", None if any(f"--stack {STACK}" in m["Message"] for m in messages) else messages)


def check_logs(deployment: Deployment, resources: dict[str, str]) -> None:
    """Checks the log groups of the deployed functions: they have metrics for CloudWatch, and no token."""
    logs = deployment.client("logs")
    for provider in PROVIDERS:
        group = resources[f"{provider.capitalize()}Logs"]
        lines = []
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group):
            lines += [event["message"] for event in page["events"]]
        metrics = [json.loads(line) for line in lines if line.startswith("{") and '"_aws"' in line]
        deliveries = sum("Deliveries" in line for line in metrics)
        namespaces = {m["Namespace"] for line in metrics for m in line["_aws"]["CloudWatchMetrics"]}
        check(f"{provider} writes metrics of its deliveries in the stack's namespace", None if deliveries and namespaces == {f"order-webhooks/{STACK}"} else (len(lines), namespaces))
        sets = {tuple(map(tuple, m["Dimensions"])) for line in metrics if "Deliveries" in line for m in line["_aws"]["CloudWatchMetrics"]}
        check(f"{provider} counts deliveries in all, by provider and by shop", sets ^ {((), ("provider",), ("provider", "shop"))})
        check(f"{provider} logs no token", [line for line in lines if "local-development-token" in line or "local-key" in line or "local-secret" in line])


def run(*command: str) -> str:
    """Runs a documented command, and returns its output, or "" after a failed check."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, cwd=ROOT)
    check(" ".join(command[:4]), done.stderr[-1500:] or "it failed" if done.returncode else None)
    return "" if done.returncode else done.stdout


def check_operator_commands(deployment: Deployment, resources: dict[str, str]) -> None:
    """Runs the documented commands for a deployed stack."""
    outputs = json.loads(run("sam", "list", "stack-outputs", "--stack-name", STACK, "--output", "json") or "[]")
    check("sam list shows all outputs", deployment.outputs.keys() ^ {output["OutputKey"] for output in outputs})
    shown = json.loads(run("cargo", "local", "show", "selldone", "main", "1001", "--stack", STACK) or "{}")
    check("cargo local show finds the order", None if shown.get("events") else shown)
    unread = ROOT / "events" / "snipcart" / "unknown-event.json"
    _, answer = send_event(deployment, resources["SnipcartFunctionAliaslive"], unread)
    for task in (["requeue"], ["reprocess"], ["dismiss", answer["event_id"]]):
        answer = json.loads(run("cargo", "local", *task, "--stack", STACK) or "{}")
    check("one delivery is dismissed", None if answer.get("dismissed") == 1 else answer)


def check_rollback(deployment: Deployment, before: str) -> None:
    """Returns to the version before, as documented."""
    function = deployment.resources()["SelldoneFunction"]
    run("aws", "lambda", "update-alias", "--function-name", function, "--name", "live", "--function-version", before)
    alias = deployment.client("lambda").get_alias(FunctionName=function, Name="live")
    check("the alias points to the version before", None if alias["FunctionVersion"] == before else alias)


def check_removal(deployment: Deployment) -> None:
    """Deletes the stack, then the resources that it retains."""
    table, secret = deployment.outputs["Table"], deployment.outputs["CartumSecret"]
    dynamodb = deployment.client("dynamodb")
    run("sam", "delete", "--stack-name", STACK, "--no-prompts", "--region", "us-east-1")
    tables = dynamodb.list_tables()["TableNames"]
    check("the table is retained when the stack is deleted", None if table in tables else tables)
    run("aws", "dynamodb", "update-table", "--table-name", table, "--no-deletion-protection-enabled")
    run("aws", "dynamodb", "delete-table", "--table-name", table)
    check("the table can be deleted", None if table not in dynamodb.list_tables()["TableNames"] else table)
    run("aws", "secretsmanager", "delete-secret", "--secret-id", secret)


def check_wrong_parameters(deployment: Deployment) -> None:
    """Checks that the template refuses wrong values of each parameter."""
    cloudformation = deployment.client("cloudformation")
    s3 = deployment.client("s3")
    bucket = next(b["Name"] for b in s3.list_buckets()["Buckets"] if "sam" in b["Name"])
    template = cloudformation.get_template(StackName=STACK, TemplateStage="Original")["TemplateBody"]
    s3.put_object(Bucket=bucket, Key="refused.template", Body=template if isinstance(template, str) else json.dumps(template))
    url = f"{os.environ['AWS_ENDPOINT_URL']}/{bucket}/refused.template"
    accepted = []
    for name, value in WRONG:
        try:
            cloudformation.create_change_set(
                StackName=f"refused-{name}",
                ChangeSetName="refused",
                ChangeSetType="CREATE",
                TemplateURL=url,
                Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
                Parameters=[{"ParameterKey": name, "ParameterValue": value}],
            )
            accepted.append(f"{name}={value}")
        except botocore.exceptions.ClientError as error:
            if name not in str(error):
                accepted.append(f"{name}={value}: {error}")
    check(f"{len(WRONG)} wrong values, each refused with the name of its parameter", accepted)
    declared = {parameter["ParameterKey"] for parameter in cloudformation.get_template_summary(TemplateURL=url)["Parameters"]}
    tried = {name for name, _ in WRONG}
    # The parameters of all providers have the same form.
    tried |= {name.replace("Selldone", provider.capitalize()) for name in tried for provider in PROVIDERS}
    check("every parameter is tried with a wrong value", declared ^ (tried & declared))


# Types of resources that hold data, or whose name is used outside the stack.
KEPT = (
    "AWS::DynamoDB::Table",
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
    "AWS::Logs::LogGroup",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
    "AWS::SecretsManager::Secret",
    "AWS::ApiGatewayV2::Api",
)


def check_reconciliation(deployment: Deployment) -> None:
    """Checks that an order which only the API of Snipcart knows is published, once, by a function that is off by default."""
    check("without reconciliation there is no function for it", [name for name in deployment.resources() if name.startswith("Reconcile")])
    deployment.deploy(ReconcileSnipcart="true")
    resources = deployment.resources()
    check("a provider that is not reconciled has no schedule", [n for n in resources if re.fullmatch("Reconcile(Selldone|Cartum|Aboutyou)Schedule", n)])
    schedule = deployment.client("scheduler").get_schedule(Name=resources["ReconcileSnipcartSchedule"].rpartition("/")[2])
    target = schedule["Target"]
    check("the schedule's rate", None if schedule["ScheduleExpression"] == "rate(60 minutes)" else schedule)
    check("the schedule invokes the alias", None if target["Arn"] == deployment.outputs["Reconcile"] else target)
    shop = SECRETS["snipcart"] | {"api": {"key": "local-key"}}
    value = json.dumps({"shops": {"main": shop}})
    run("aws", "secretsmanager", "put-secret-value", "--secret-id", deployment.outputs["SnipcartSecret"], "--secret-string", value)
    delivery = json.loads((ROOT / "events/snipcart/order-completed.json").read_text())
    order = json.loads(delivery["body"])["content"]
    changed = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    times = dict.fromkeys(("creationDate", "modificationDate", "completionDate"), changed.strftime("%Y-%m-%dT%H:%M:%SZ"))
    Snipcart.orders = [order | times | {"token": "an-order-without-a-webhook"}]
    receive_messages(deployment, 0)
    for expected in (1, 0):
        answer = deployment.invoke(deployment.outputs["Reconcile"], json.loads(target["Input"]))
        shop = answer["shops"][0]
        right = answer["done"] and shop["status"] == "complete" and (shop["compared"], shop["missing"]) == (1, expected)
        check(f"a run of reconcile finds {expected} missing order", None if right else answer)
    messages = [json.loads(message["Message"]) for message in receive_messages(deployment, 1)]
    said = [(m["subject"], m["type"], m["data"]["origin"]) for m in messages]
    wanted = [("an-order-without-a-webhook", "order.created", "reconciliation")]
    check("the missing order is published once", None if said == wanted else said)
    value = json.dumps({"shops": {"main": SECRETS["cartum"] | {"api": CARTUM_API}}})
    run("aws", "secretsmanager", "put-secret-value", "--secret-id", deployment.outputs["CartumSecret"], "--secret-string", value)
    deployment.deploy(ReconcileSnipcart="true", ReconcileCartum="true")
    settings = deployment.client("lambda").get_function_configuration(FunctionName=deployment.outputs["Reconcile"])
    used = settings["Environment"]["Variables"]["SECRETS_CARTUM"]
    check("a second provider reaches reconcile's alias", None if used == deployment.outputs["CartumSecret"] else used)
    check_reconcile_commands(deployment, changed)


def check_reconcile_commands(deployment: Deployment, changed: datetime.datetime) -> None:
    """Runs the documented commands of reconcile for a deployed stack. Snipcart's order is known, Cartum's is not."""
    order = json.loads(json.loads((ROOT / "events/cartum/order-created.json").read_text())["body"])
    placed = changed.astimezone(zoneinfo.ZoneInfo("Europe/Kyiv")).strftime("%Y-%m-%d %H:%M:%S")
    Cartum.orders = [order | {"order_id": 4711, "stat_created": placed}]
    since = (changed - datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for provider, missing in (("snipcart", 0), ("cartum", 1), ("cartum", 0)):
        found = json.loads(run("cargo", "local", "reconcile", provider, "main", "--from", since, "--stack", STACK, "--json") or "{}")
        right = (found.get("compared"), found.get("missing"), found.get("accepted")) == (1, missing, missing)
        check(f"cargo local reconcile {provider} finds {missing} missing order", None if right else found)
    route = deployment.outputs["CartumWebhook"].replace("{shop}", "main").replace("{token}", TOKENS["tokens"][0])
    urls = [f"{route}&event={event}" for event in ("order_created", "order_paid", "order_update")]
    for status in ("subscribed", "known"):
        answer = json.loads(run("cargo", "local", "connect", "cartum", "main", "--stack", STACK, "--json") or "{}")
        said = [subscription["status"] for subscription in answer.get("subscriptions", [])]
        check(f"cargo local connect says {status}", None if said == [status] * 3 else answer)
    # Each URL ends with a word of its own.
    words = [re.fullmatch(rf"{re.escape(url)}&subscription=([0-9a-f]{{32}})", asked) for url, asked in zip(urls, Cartum.subscribed)]
    is_right = len(Cartum.subscribed) == len(urls) and all(words) and len({word[1] for word in words}) == len(urls)
    check("each event is subscribed once, to the URL of the stack", None if is_right else Cartum.subscribed)


def check_update(deployment: Deployment, before: pathlib.Path) -> None:
    """Checks that a stack of the version before is updated in place."""
    deployment.deploy(template=before)
    was, types, secret = deployment.resources(), deployment.types(), deployment.outputs["SelldoneSecret"]
    secrets = deployment.client("secretsmanager")
    value = json.dumps({"shops": {"main": TOKENS}})
    secrets.put_secret_value(SecretId=secret, SecretString=value)
    deployment.deploy()
    now = deployment.resources()
    kept = [name for name, kind in types.items() if kind in KEPT]
    check(f"an update replaces none of {len(kept)} resources", {name: (was[name], now.get(name)) for name in kept if was[name] != now.get(name)})
    check("these resources are of every type in KEPT", {types[name] for name in kept} ^ set(KEPT))
    removable = ("AWS::CloudWatch::Alarm", "AWS::IAM::ManagedPolicy", "AWS::Lambda::Version")
    check("the update removes only alarms, policies and versions", {name for name in was.keys() - now.keys() if types[name] not in removable})
    stored = secrets.get_secret_value(SecretId=secret)["SecretString"]
    check("the update keeps a secret's value", None if stored == value else "it is another one")


def main() -> int:
    if not (BUILT / "template.yaml").exists():
        print("there is no build to deploy: sam build --build-dir target/ci/x86_64 --parameter-overrides Architecture=x86_64", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch, ministack(pathlib.Path(scratch)) as url:
        deployment = Deployment(url, f"{serve(Snipcart)}/api", serve(Cartum))
        try:
            deployment.deploy()
            print(f"ok     sam deploy: {len(deployment.resources())} resources", flush=True)
            check_resources(deployment)
            check_schedules(deployment)
            check_function_parameters(deployment)
            resources = deployment.resources()
            status, _ = send_event(deployment, resources["SelldoneFunctionAliaslive"], events("selldone")[0])
            check("while the secret names no shop, a delivery is answered 500", None if status == 500 else status)
            for provider, shop in SECRETS.items():
                secret = deployment.outputs[f"{provider.capitalize()}Secret"]
                value = json.dumps({"shops": {"main": shop}})
                run("aws", "secretsmanager", "put-secret-value", "--secret-id", secret, "--secret-string", value)
            accepted = check_deliveries(deployment, resources)
            check_storage(deployment, accepted)
            check_redrive(deployment, accepted)
            check_alerts(deployment)
            check_logs(deployment, resources)
            check_operator_commands(deployment, resources)
            live = {"FunctionName": resources["SelldoneFunction"], "Name": "live"}
            before = deployment.client("lambda").get_alias(**live)["FunctionVersion"]
            output = deployment.deploy()
            check("a second deploy changes nothing", None if "No changes to deploy" in output else output[-2000:])
            check_wrong_parameters(deployment)
            check_reconciliation(deployment)
            arn = deployment.outputs["CartumSecret"]
            deployment.deploy(EnableDeeple="false", SilenceHours="0", QueueAgeSeconds="3600", SelldoneSecretArn=arn)
            left = deployment.resources()
            check("a disabled provider has no resource", [name for name in left if name.startswith("Deeple")])
            check("a disabled provider has no output", [name for name in deployment.outputs if name.startswith("Deeple")])
            check("with QueueAgeSeconds there is a queue-age alarm", None if "QueueAge" in left else sorted(left))
            given = deployment.outputs["SelldoneSecret"] == arn and "SelldoneSecret" not in left
            check("an existing secret is used", None if given else deployment.outputs["SelldoneSecret"])
            settings = deployment.client("lambda").get_function_configuration(FunctionName=left["SelldoneFunctionAliaslive"])
            used = settings["Environment"]["Variables"]["SECRETS"]
            check("the alias moves to the new secret, although the code is the same", None if used == arn else used)
            settings = deployment.client("lambda").get_function_configuration(FunctionName=deployment.outputs["Redrive"])
            used = settings["Environment"]["Variables"]["SILENCE_HOURS"]
            check("SilenceHours reaches redrive's alias", None if used == "0" else used)
            check_rollback(deployment, before)
            check_removal(deployment)
            check_update(deployment, deployment.for_ministack(pathlib.Path(__file__).with_name("before.yaml")))
        finally:
            for written in BUILT.glob("*.ministack.yaml"):
                written.unlink()
    print(f"{failures} failed")
    return 1 if failures else 0


sys.exit(main())
