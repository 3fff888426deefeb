"""What happens to a request on its way: one file a policy, one list for their order."""
