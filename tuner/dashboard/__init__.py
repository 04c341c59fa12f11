"""The web app: Optuna's dashboard behind a guard, for one database."""
