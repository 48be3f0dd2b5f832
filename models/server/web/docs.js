"use strict";
// The page /docs: Swagger UI of the interface's description. FastAPI's own page has a script inside, which CSP refuses.

SwaggerUIBundle({url: "/openapi.json", dom_id: "#docs"});
