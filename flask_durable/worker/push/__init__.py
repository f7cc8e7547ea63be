"""Messages that are pushed to the app over HTTP, or by AWS Lambda."""
