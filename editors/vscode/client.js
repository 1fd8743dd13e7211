// Starts sparknet-lsp and lets it answer for .snet and .prototxt files.
const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = async () => {
  const command = workspace.getConfiguration("sparknet").get("server");
  client = new LanguageClient(
    "sparknet",
    "SparkNet",
    { command, args: ["--stdio"] },
    { documentSelector: [{ language: "snet" }, { language: "prototxt" }] },
  );
  await client.start();
};

exports.deactivate = () => client?.stop();
