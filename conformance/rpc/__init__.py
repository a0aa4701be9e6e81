"""The gRPC side: messages made from the vendored description of the service, and a client."""
