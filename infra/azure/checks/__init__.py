"""What `ahc doctor` and a release ask of a subscription before they begin. Changes nothing."""
