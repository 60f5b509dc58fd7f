"""Security: who makes a request, what they may do, and the record of what they did. It knows no HTTP, gRPC or SQL."""
