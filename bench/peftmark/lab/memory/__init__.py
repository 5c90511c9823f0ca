"""Everything that reaches into torch's insides: steps without values, and live tensors."""
