// Validates an AsyncAPI document: node asyncapi.mjs FILE
import { Parser, fromFile } from "@asyncapi/parser";

// An older version of AsyncAPI is allowed.
const ruleset = { rules: { "asyncapi-latest-version": "off" } };
const { document, diagnostics } = await fromFile(new Parser({ ruleset }), process.argv[2]).parse();
for (const { path, message } of diagnostics) console.error(`${path.join(".")}: ${message}`);
if (!document || diagnostics.length > 0) process.exit(1);
const messages = document.allMessages().all();
if (messages.length === 0) throw new Error("the document has no message");
for (const message of messages) console.log(`${message.name()}: ${message.examples().length} examples`);
