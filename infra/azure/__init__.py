"""The same ports on an Azure subscription. Use absolute imports: `azure` is the SDK."""
