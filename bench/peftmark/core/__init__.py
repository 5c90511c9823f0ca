"""What everything stands on: errors, files, hashes, strict YAML, amounts with units."""
