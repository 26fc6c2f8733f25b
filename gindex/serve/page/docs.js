"use strict";
// The badge of a validator elsewhere is left out.
SwaggerUIBundle({url: "openapi.json", dom_id: "#interface", deepLinking: true, validatorUrl: null});
