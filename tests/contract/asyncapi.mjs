// Whether a document is AsyncAPI: node asyncapi.mjs FILE
import { Parser, fromFile } from "@asyncapi/parser";

// That there is a newer version of AsyncAPI is no fault.
const ruleset = { rules: { "asyncapi-latest-version": "off" } };
const { document, diagnostics } = await fromFile(new Parser({ ruleset }), process.argv[2]).parse();
for (const { path, message } of diagnostics) console.error(`${path.join(".")}: ${message}`);
if (!document || diagnostics.length > 0) process.exit(1);
const messages = document.allMessages().all();
if (messages.length === 0) throw new Error("it has no message");
for (const message of messages) console.log(`${message.name()}: ${message.examples().length} examples`);
