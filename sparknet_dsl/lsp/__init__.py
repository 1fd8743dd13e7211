"""The language server, `sparknet-lsp`: what the compiler knows of a file, for editors. Needs the extra `lsp`."""
