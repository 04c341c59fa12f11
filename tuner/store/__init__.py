"""What happened: studies, runs, leases, metrics and events in one SQL database, beside Optuna's own tables."""
