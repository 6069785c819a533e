#!/usr/bin/env python3
"""Deploys what `sam build` has built with `sam deploy`, into ministack, and uses it: tests/deploy/deploy.py

ministack (CloudFormation, Lambda, DynamoDB, SNS, SQS and what else the template names, in one local process) has to be
installed beside the Python that runs this, with what stands in requirements.txt; `sam` and the AWS CLI have to be on the path.

The template is the built one. Only the AWS endpoints, which it declares empty for that purpose, lead to ministack here, and
Snipcart's API to a stand-in. Four gaps: ministack has no CodeDeploy, so the deployment is not gradual; it keeps no topic's key; it knows no
metric math, so an alarm on several functions watches them without it; and it takes over no routes of an HTTP API, so functions are invoked with
API Gateway's events (`sam local start-api` has the routes).
"""

import base64
import concurrent.futures
import contextlib
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

import boto3
import botocore.config
import botocore.exceptions
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILT = ROOT / "target" / "ci" / "x86_64"
STACK = "order-webhooks"
PROVIDERS = ["aboutyou", "cartum", "deeple", "selldone", "snipcart"]
# Besides those of each provider.
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
# The events in events/ were signed when they were recorded.
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
    ("SlowMilliseconds", "99"),
    ("OutboxAgeSeconds", "1"),
    ("QueueAgeSeconds", "9"),
    ("ThrottlingRate", "0"),
    ("ThrottlingBurst", "0"),
    ("MaxBodyBytes", "5 MB"),
    ("PublishUnmapped", "no"),
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
    """Tells how it went; whatever `wrong` holds is the fault."""
    global failures
    failures += bool(wrong)
    print(f"failed {what}: {wrong}" if wrong else f"ok     {what}", flush=True)


class Snipcart(http.server.BaseHTTPRequestHandler):
    """Snipcart's validation call, for the one key and request token of events/snipcart."""

    def do_GET(self) -> None:
        key = "Basic " + base64.b64encode(b"local-key:").decode()
        if self.headers.get("authorization") != key:
            status = 401
        elif self.path == "/api/requestvalidation/local-request-token":
            status = 200
        else:
            status = 404
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def ministack(scratch: pathlib.Path):
    """A ministack of our own; gives its URL, and shows its last lines when something fails."""
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
            raise SystemExit("ministack has ended: " + (scratch / "ministack.log").read_text()[-2000:])
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


class Template(yaml.SafeLoader):
    """Reads CloudFormation's short tags as the functions that they stand for."""


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
    """An alarm on the metrics of several functions watches the metric without a dimension."""
    for resource in template["Resources"].values():
        if "Metrics" in resource.get("Properties", {}):
            properties = resource["Properties"]
            _, query, _ = next(metric["Fn::If"] for metric in properties.pop("Metrics") if "Fn::If" in metric)
            metric, statistic = query["MetricStat"]["Metric"], query["MetricStat"]["Stat"]
            properties |= {"Namespace": metric["Namespace"], "MetricName": metric["MetricName"], "Period": query["MetricStat"]["Period"]}
            properties["Statistic" if statistic == "Sum" else "ExtendedStatistic"] = statistic
    return template


class Deployment:
    """The stack in ministack."""

    def __init__(self, url: str, snipcart: str):
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
        self.url, self.snipcart = url, snipcart
        self.template = self.for_ministack(BUILT / "template.yaml")
        self.outputs: dict[str, str] = {}

    def for_ministack(self, path: pathlib.Path) -> pathlib.Path:
        """A template whose functions are those in BUILT, as ministack can deploy it."""
        template = without_metric_math(yaml.load(path.read_text(), Template))
        variables = template["Globals"]["Function"]["Environment"]["Variables"]
        for service in ("DYNAMODB", "SNS", "SECRETS_MANAGER"):
            if variables[f"AWS_ENDPOINT_URL_{service}"]:
                raise SystemExit(f"{path} declares no empty AWS_ENDPOINT_URL_{service}")
            variables[f"AWS_ENDPOINT_URL_{service}"] = self.url
        for name, resource in template["Resources"].items():
            if resource["Type"] == "AWS::Serverless::Function":
                resource["Properties"]["CodeUri"] = name
        # The template itself lets nothing but https pass.
        variables = template["Resources"]["SnipcartFunction"]["Properties"]["Environment"]["Variables"]
        if variables["SNIPCART_API_URL"] != {"Ref": "SnipcartApiUrl"}:
            raise SystemExit(f"{path} has no SNIPCART_API_URL")
        variables["SNIPCART_API_URL"] = self.snipcart
        written = BUILT / f"{path.stem}.ministack.yaml"
        written.write_text(yaml.dump(template, Dumper=WithoutAliases, sort_keys=False))
        return written

    def client(self, service: str):
        config = botocore.config.Config(read_timeout=120, retries={"max_attempts": 0}, max_pool_connections=16)
        return boto3.client(service, config=config)

    def deploy(self, template: pathlib.Path | None = None, **parameters: str) -> str:
        """`sam deploy` with samconfig.toml, and what it says."""
        command = ["sam", "deploy", "--template-file", str(template or self.template), "--config-file", str(ROOT / "samconfig.toml")]
        command += ["--no-confirm-changeset", "--no-progressbar", "--parameter-overrides"]
        command += [f"{name}={value}" for name, value in (PARAMETERS | parameters).items()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, cwd=ROOT)
        said = done.stdout + done.stderr
        if done.returncode:
            raise SystemExit(f"sam deploy failed:\n{said[-6000:]}")
        stack = self.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        return said

    def listed(self) -> list[dict]:
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
        listed = (resource for page in pages for resource in page["StackResourceSummaries"])
        return [resource for resource in listed if resource["ResourceStatus"] != "DELETE_COMPLETE"]

    def resources(self) -> dict[str, str]:
        """The physical id of each resource, by its name in the template."""
        return {resource["LogicalResourceId"]: resource.get("PhysicalResourceId", "") for resource in self.listed()}

    def types(self) -> dict[str, str]:
        return {resource["LogicalResourceId"]: resource["ResourceType"] for resource in self.listed()}

    def invoke(self, function: str, payload: dict) -> dict:
        """Invokes the deployed alias."""
        answer = self.client("lambda").invoke(FunctionName=function, Payload=json.dumps(payload))
        said = json.load(answer["Payload"])
        if "FunctionError" in answer:
            raise RuntimeError(f"{function} failed: {said}")
        return said


def events(provider: str) -> list[pathlib.Path]:
    return sorted(path for path in (ROOT / "events" / provider).glob("*.json") if not path.name.endswith(".normalized.json"))


def answered(deployment: Deployment, function: str, event: pathlib.Path) -> tuple[int, dict]:
    answer = deployment.invoke(function, json.loads(event.read_text()))
    return answer["statusCode"], json.loads(answer["body"])


def drained(deployment: Deployment, expected: int, queue: str = "") -> list[dict]:
    """The messages of the deployed queue, or another: waits for as many as are expected, then for one that should not be there."""
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


def deployed_as_described(deployment: Deployment) -> None:
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
    mute = [a["AlarmName"] for a in alarms if a["AlarmActions"] != [deployment.outputs["AlarmTopic"]] or len(a.get("AlarmDescription", "")) < 80]
    check("each alarm goes to the alarm topic and says what to do", mute)
    # CloudWatch's own limits.
    long = [a["AlarmName"] for a in alarms if a["Period"] * a["EvaluationPeriods"] > (604800 if a["Period"] >= 3600 else 86400)]
    check("each alarm looks back no further than CloudWatch can", long)
    body = deployment.client("cloudwatch").get_dashboard(DashboardName=f"{STACK}-us-east-1")["DashboardBody"]
    shown = json.loads(body)["widgets"]
    listed = next(widget for widget in shown if widget["type"] == "alarm")["properties"]["alarms"]
    check("the dashboard shows every alarm", {arn.split(":alarm:")[1] for arn in listed} ^ expected)
    left = re.findall(r"\$\{(?!PROP)[^}]*\}", body)
    check("the dashboard has nothing left to fill in", left)


def parameters_are_listed(deployment: Deployment) -> None:
    """A parameter that a function sees and its PARAMETERS leave out would never reach the alias."""
    template = yaml.safe_load(deployment.template.read_text())

    def refs(node: object) -> set[str]:
        if isinstance(node, dict):
            named = {node["Ref"]} if isinstance(node.get("Ref"), str) else set()
            # An Fn::If names a condition, whose own parameters count too.
            if isinstance(node.get("Fn::If"), list):
                named |= refs(template["Conditions"][node["Fn::If"][0]])
            if isinstance(node.get("Condition"), str) and len(node) == 1:
                named |= refs(template["Conditions"][node["Condition"]])
            return named.union(*map(refs, node.values()))
        return set().union(*map(refs, node)) if isinstance(node, list) else set()

    # Where the code differs too, or the function does not.
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
    check("each function's PARAMETERS name every parameter that it sees", forgotten)


def schedules_as_described(deployment: Deployment) -> None:
    scheduler = deployment.client("scheduler")
    schedules = [scheduler.get_schedule(Name=found["Name"]) for found in scheduler.list_schedules()["Schedules"]]
    targets = [schedule["Target"] for schedule in schedules]
    tasks = sorted(target["Input"] for target in targets)
    check("a schedule for each regular task", None if tasks == ['{"alert":{}}', '{"redrive":{}}'] else tasks)
    check("each invokes redrive's alias", {target["Arn"] for target in targets} ^ {deployment.outputs["Redrive"]})
    check("each has a dead-letter target", [target for target in targets if not target.get("DeadLetterConfig", {}).get("Arn")])


def answered_with_secret(deployment: Deployment, alias: str, event: pathlib.Path) -> tuple[int, dict]:
    """The answer to an event, once the environment has read the secret: it asks for one that named no shop at most every 5 seconds."""
    until = time.monotonic() + 30
    while True:
        status, body = answered(deployment, alias, event)
        if status != 500 or time.monotonic() > until:
            return status, body
        time.sleep(0.5)


def taken(deployment: Deployment, resources: dict[str, str]) -> dict[str, pathlib.Path]:
    """Every event to its deployed function; gives the accepted ones by their id."""
    calls = [(provider, event) for provider in PROVIDERS for event in events(provider)]
    aliases = {provider: resources[f"{provider.capitalize()}FunctionAliaslive"] for provider in PROVIDERS}
    accepted, wrong = {}, []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda call: answered_with_secret(deployment, aliases[call[0]], call[1]), calls)
        for (_, event), (status, body) in zip(calls, answers, strict=True):
            statuses = {"accepted"} if event.with_suffix(".normalized.json").exists() else {"unsupported", "quarantined"}
            if status != 200 or body.get("status") not in statuses:
                wrong.append(f"{event.relative_to(ROOT)}: {status} {body}")
            elif body["status"] == "accepted":
                accepted[body["event_id"]] = event
    check(f"{len(calls)} events, each answered as it should be", "\n".join(wrong))
    event = ROOT / "events" / "selldone" / "checkout-order.json"
    answer = answered(deployment, aliases["selldone"], event)
    check("the same event again is a duplicate", None if answer[1].get("status") == "duplicate" else answer)
    forged = json.loads(event.read_text())
    forged["rawQueryString"] = "token=another-token-of-some-length"
    answer = deployment.invoke(aliases["selldone"], forged)
    check("a forged one is refused", None if answer["statusCode"] == 401 else answer)
    return accepted


def kept(deployment: Deployment, accepted: dict[str, pathlib.Path]) -> None:
    dynamodb = deployment.client("dynamodb")
    states: dict[str, int] = {}
    for event_id in accepted:
        found = dynamodb.get_item(
            TableName=deployment.outputs["Table"], Key={"pk": {"S": event_id}, "sk": {"S": "head"}}, ConsistentRead=True
        ).get("Item", {})
        state = found.get("state", {}).get("S", "missing")
        states[state] = states.get(state, 0) + 1
    check(f"{len(accepted)} items in the deployed table, published", None if states == {"published": len(accepted)} else states)
    messages = drained(deployment, len(accepted))
    published = [json.loads(message["Message"])["id"] for message in messages]
    check(f"{len(accepted)} messages in the deployed queue", set(published) ^ set(accepted) or len(published) - len(accepted))


def redriven(deployment: Deployment, accepted: dict[str, pathlib.Path]) -> None:
    redrive, table = deployment.outputs["Redrive"], deployment.outputs["Table"]
    answer = deployment.invoke(redrive, {"redrive": {}})
    check("redrive finds nothing to do", None if answer.get("done") and not answer.get("published") else answer)
    event_id = next(iter(accepted))
    answer = deployment.invoke(redrive, {"get": {"event_id": event_id}})
    check("redrive shows an event", None if event_id in json.dumps(answer) else answer)
    # As it stands when a function has died between the two: stored, not published.
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
    check("redrive publishes what waits", None if answer.get("published") == 1 else answer)
    ids = [json.loads(message["Message"])["id"] for message in drained(deployment, 1)]
    check("and its message comes", None if ids == [event_id] else ids)


def alerted(deployment: Deployment) -> None:
    """What the functions have noted of the events, as alerts on the alarm topic."""
    sqs = deployment.client("sqs")
    queue = sqs.create_queue(QueueName="alerts")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    deployment.client("sns").subscribe(TopicArn=deployment.outputs["AlarmTopic"], Protocol="sqs", Endpoint=arn)
    answer = deployment.invoke(deployment.outputs["Redrive"], {"alert": {}})
    check("redrive sends alerts", None if answer.get("sent") else answer)
    messages = drained(deployment, answer.get("sent", 1), queue)
    unnamed = [m["Subject"] for m in messages if not m["Subject"].startswith(f"{STACK}: ")]
    check("which name the stack", unnamed or (None if messages else "there is none"))
    check("and the command to run for it", None if any(f"--stack {STACK}" in m["Message"] for m in messages) else messages)


def told(deployment: Deployment, resources: dict[str, str]) -> None:
    """The deployed functions' log groups: metrics as CloudWatch reads them, and no token."""
    logs = deployment.client("logs")
    for provider in PROVIDERS:
        group = resources[f"{provider.capitalize()}Logs"]
        lines = []
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group):
            lines += [event["message"] for event in page["events"]]
        metrics = [json.loads(line) for line in lines if line.startswith("{") and '"_aws"' in line]
        deliveries = sum("Deliveries" in line for line in metrics)
        namespaces = {m["Namespace"] for line in metrics for m in line["_aws"]["CloudWatchMetrics"]}
        check(f"{provider} tells of its deliveries in the stack's namespace", None if deliveries and namespaces == {f"order-webhooks/{STACK}"} else (len(lines), namespaces))
        sets = {tuple(map(tuple, m["Dimensions"])) for line in metrics if "Deliveries" in line for m in line["_aws"]["CloudWatchMetrics"]}
        check(f"{provider} counts deliveries in all, by provider and by shop", sets ^ {((), ("provider",), ("provider", "shop"))})
        check(f"{provider} tells no token", [line for line in lines if "local-development-token" in line or "local-key" in line or "local-secret" in line])


def ran(*command: str) -> str:
    """What a command of the README prints; empty, and told as a failure, where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, cwd=ROOT)
    check(" ".join(command[:4]), done.stderr[-1500:] or "it failed" if done.returncode else None)
    return "" if done.returncode else done.stdout


def operated(deployment: Deployment, resources: dict[str, str]) -> None:
    """The README's commands for a deployed stack, as an operator types them."""
    outputs = json.loads(ran("sam", "list", "stack-outputs", "--stack-name", STACK, "--output", "json") or "[]")
    check("and it lists them all", deployment.outputs.keys() ^ {output["OutputKey"] for output in outputs})
    shown = json.loads(ran("cargo", "local", "show", "selldone", "main", "1001", "--stack", STACK) or "{}")
    check("and it shows the order", None if shown.get("events") else shown)
    unread = ROOT / "events" / "snipcart" / "unknown-event.json"
    _, said = answered(deployment, resources["SnipcartFunctionAliaslive"], unread)
    for task in (["requeue"], ["reprocess"], ["dismiss", said["event_id"]]):
        answer = json.loads(ran("cargo", "local", *task, "--stack", STACK) or "{}")
    check("and what it dismisses is one", None if answer.get("dismissed") == 1 else answer)


def went_back(deployment: Deployment, before: str) -> None:
    """The README's way back to the version before."""
    function = deployment.resources()["SelldoneFunction"]
    ran("aws", "lambda", "update-alias", "--function-name", function, "--name", "live", "--function-version", before)
    alias = deployment.client("lambda").get_alias(FunctionName=function, Name="live")
    check("and the alias is back", None if alias["FunctionVersion"] == before else alias)


def removed(deployment: Deployment) -> None:
    """What a stack leaves, and how that goes too."""
    table, secret = deployment.outputs["Table"], deployment.outputs["CartumSecret"]
    dynamodb = deployment.client("dynamodb")
    ran("sam", "delete", "--stack-name", STACK, "--no-prompts", "--region", "us-east-1")
    tables = dynamodb.list_tables()["TableNames"]
    check("the table stays when the stack is deleted", None if table in tables else tables)
    ran("aws", "dynamodb", "update-table", "--table-name", table, "--no-deletion-protection-enabled")
    ran("aws", "dynamodb", "delete-table", "--table-name", table)
    check("and goes when it is told to", None if table not in dynamodb.list_tables()["TableNames"] else table)
    ran("aws", "secretsmanager", "delete-secret", "--secret-id", secret)


def refused(deployment: Deployment) -> None:
    """A wrong parameter is refused by the template, not at run time."""
    cloudformation = deployment.client("cloudformation")
    s3 = deployment.client("s3")
    bucket = next(b["Name"] for b in s3.list_buckets()["Buckets"] if "sam" in b["Name"])
    template = cloudformation.get_template(StackName=STACK, TemplateStage="Original")["TemplateBody"]
    s3.put_object(Bucket=bucket, Key="refused.template", Body=template if isinstance(template, str) else json.dumps(template))
    url = f"{os.environ['AWS_ENDPOINT_URL']}/{bucket}/refused.template"
    let_pass = []
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
            let_pass.append(f"{name}={value}")
        except botocore.exceptions.ClientError as error:
            if name not in str(error):
                let_pass.append(f"{name}={value}: {error}")
    check(f"{len(WRONG)} wrong parameters, each refused by its name", let_pass)
    declared = {parameter["ParameterKey"] for parameter in cloudformation.get_template_summary(TemplateURL=url)["Parameters"]}
    tried = {name for name, _ in WRONG}
    # The other providers' are made like Selldone's.
    tried |= {name.replace("Selldone", provider.capitalize()) for name in tried for provider in PROVIDERS}
    check("every parameter has a value that it refuses", declared ^ (tried & declared))


# What holds data or is known by its name outside of the stack.
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


def updated(deployment: Deployment, before: pathlib.Path) -> None:
    """A stack of the version before is updated in place."""
    deployment.deploy(template=before)
    was, types, secret = deployment.resources(), deployment.types(), deployment.outputs["SelldoneSecret"]
    secrets = deployment.client("secretsmanager")
    value = json.dumps({"shops": {"main": TOKENS}})
    secrets.put_secret_value(SecretId=secret, SecretString=value)
    deployment.deploy()
    now = deployment.resources()
    kept = [name for name, kind in types.items() if kind in KEPT]
    check(f"an update replaces none of {len(kept)} resources", {name: (was[name], now.get(name)) for name in kept if was[name] != now.get(name)})
    check("which are of every kind that holds data", {types[name] for name in kept} ^ set(KEPT))
    removable = ("AWS::CloudWatch::Alarm", "AWS::IAM::ManagedPolicy", "AWS::Lambda::Version")
    check("it removes alarms and policies only", {name for name in was.keys() - now.keys() if types[name] not in removable})
    stored = secrets.get_secret_value(SecretId=secret)["SecretString"]
    check("a secret keeps the value that an operator has stored", None if stored == value else "it does not")


def main() -> int:
    if not (BUILT / "template.yaml").exists():
        print("there is nothing to deploy: sam build --build-dir target/ci/x86_64 --parameter-overrides Architecture=x86_64", file=sys.stderr)
        return 2
    snipcart = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Snipcart)
    threading.Thread(target=snipcart.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as scratch, ministack(pathlib.Path(scratch)) as url:
        deployment = Deployment(url, f"http://127.0.0.1:{snipcart.server_port}/api")
        try:
            deployment.deploy()
            print(f"ok     sam deploy: {len(deployment.resources())} resources", flush=True)
            deployed_as_described(deployment)
            schedules_as_described(deployment)
            parameters_are_listed(deployment)
            resources = deployment.resources()
            status, _ = answered(deployment, resources["SelldoneFunctionAliaslive"], events("selldone")[0])
            check("with the secret as created every delivery is answered 500", None if status == 500 else status)
            for provider, shop in SECRETS.items():
                secret = deployment.outputs[f"{provider.capitalize()}Secret"]
                value = json.dumps({"shops": {"main": shop}})
                ran("aws", "secretsmanager", "put-secret-value", "--secret-id", secret, "--secret-string", value)
            accepted = taken(deployment, resources)
            kept(deployment, accepted)
            redriven(deployment, accepted)
            alerted(deployment)
            told(deployment, resources)
            operated(deployment, resources)
            live = {"FunctionName": resources["SelldoneFunction"], "Name": "live"}
            before = deployment.client("lambda").get_alias(**live)["FunctionVersion"]
            said = deployment.deploy()
            check("a second deploy changes nothing", None if "No changes to deploy" in said else said[-2000:])
            refused(deployment)
            arn = deployment.outputs["CartumSecret"]
            deployment.deploy(EnableDeeple="false", SilenceHours="0", QueueAgeSeconds="3600", SelldoneSecretArn=arn)
            left = deployment.resources()
            check("a provider that is not enabled has no resource", [name for name in left if name.startswith("Deeple")])
            check("nor an output", [name for name in deployment.outputs if name.startswith("Deeple")])
            check("with QueueAgeSeconds the queue's age is watched", None if "QueueAge" in left else sorted(left))
            given = deployment.outputs["SelldoneSecret"] == arn and "SelldoneSecret" not in left
            check("a secret that exists is used", None if given else deployment.outputs["SelldoneSecret"])
            settings = deployment.client("lambda").get_function_configuration(FunctionName=left["SelldoneFunctionAliaslive"])
            used = settings["Environment"]["Variables"]["SECRETS"]
            check("and the alias follows, though the code is the same", None if used == arn else used)
            settings = deployment.client("lambda").get_function_configuration(FunctionName=deployment.outputs["Redrive"])
            used = settings["Environment"]["Variables"]["SILENCE_HOURS"]
            check("SilenceHours reaches redrive's alias", None if used == "0" else used)
            went_back(deployment, before)
            removed(deployment)
            updated(deployment, deployment.for_ministack(pathlib.Path(__file__).with_name("before.yaml")))
        finally:
            for written in BUILT.glob("*.ministack.yaml"):
                written.unlink()
    print("nothing failed" if not failures else f"{failures} failed")
    return 1 if failures else 0


sys.exit(main())
