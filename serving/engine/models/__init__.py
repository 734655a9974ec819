"""What makes vLLM's model classes obey a plan: one mixin (`base`), one file a family, and how the prior is made and handed on."""
