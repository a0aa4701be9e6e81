"""What every API view shares: problems, pagination, idempotency, entity tags, schema."""
