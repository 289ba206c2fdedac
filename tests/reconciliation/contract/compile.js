// Print the bytecode and the selectors of Positions.sol as JSON: NODE_PATH=<folder with solc> node compile.js
const fs = require("fs");
const path = require("path");
const solc = require("solc");
const file = "Positions.sol";
const input = {
  language: "Solidity",
  sources: { [file]: { content: fs.readFileSync(path.join(__dirname, file), "utf8") } },
  settings: {
    optimizer: { enabled: true, runs: 200 },
    evmVersion: "shanghai",
    metadata: { appendCBOR: false },
    outputSelection: { "*": { "*": ["evm.bytecode.object", "evm.methodIdentifiers"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
if (output.errors) console.error(output.errors.map((e) => e.formattedMessage).join("\n"));
const { bytecode, methodIdentifiers } = output.contracts[file].Positions.evm;
console.log(JSON.stringify({ compiler: solc.version(), bytecode: bytecode.object, selectors: methodIdentifiers }, null, 1));
