"""A run from plan to stored rows, and what a person sees and needs meanwhile."""
