"""What a stage can minimise. Name → `module:Class`."""

NAMES = {
    "next_token": "next_token:NextToken",
    "timelines": "timelines:Timelines",
}
