"""Which values next: the study driver, and Optuna's samplers and pruners by name."""
