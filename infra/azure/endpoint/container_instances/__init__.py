"""The endpoint as two container groups behind one name. Nothing of App Service."""
