"""A greeter that knows a few languages."""
