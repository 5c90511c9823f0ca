"""Published claims, and what measured rows and predictions say of them."""
