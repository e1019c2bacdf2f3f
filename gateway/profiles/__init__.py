"""The device language: how a product reports and how it is commanded."""
