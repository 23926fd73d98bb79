"""Sign-in, SDK clients, roles, names of resources, and the translation of SDK errors. Makes no resource."""
