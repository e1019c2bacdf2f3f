"""The file of agreements: contracts with aggregators, pay plans, accounts and policy, as data."""
