"""The controller: one file per operator's intent. It follows the agents; no migration needs it to end well."""
