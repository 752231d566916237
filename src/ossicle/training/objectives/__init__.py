"""What a stage can minimise. Name → `module:Class`."""

NAMES = {
    "next_token": "next_token:NextToken",
    "tagging": "tagging:Tagging",
    "timelines": "timelines:Timelines",
}
