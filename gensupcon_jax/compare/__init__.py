"""Several runs on one page: what differs, curves, results with paired tests, mean and spread over seeds."""
