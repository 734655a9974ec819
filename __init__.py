"""lostattn: model surgery for large vision-language models with a Shared Attention Prior (SAP)."""
