"""What is known of releases: the ledger, the traffic, the records, the scoring client. Deploys nothing."""
