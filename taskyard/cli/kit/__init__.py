"""What all commands share: options, output, exit codes, the operator log."""
