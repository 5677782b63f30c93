"""The API's own description: an OpenAPI document, made of the routes themselves when somebody asks."""
