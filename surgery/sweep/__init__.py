"""`lostattn sweep`: many plans on one loaded model, each evaluated on the same items."""
