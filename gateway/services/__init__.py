"""Asyncio shells that hold state and await; they do not decide."""
