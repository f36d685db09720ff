"""Charts of a report page: SVG that takes its colours from the page's style sheet, and small pictures."""
