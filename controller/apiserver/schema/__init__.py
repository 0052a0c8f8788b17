"""What is valid: structural schemas, CEL rules, and CustomResourceDefinitions themselves."""
