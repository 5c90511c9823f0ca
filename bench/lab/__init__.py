"""Everything that imports torch: one job from seed to outcome."""
