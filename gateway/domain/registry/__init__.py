"""Who is where, and since when: identities and their validity."""
