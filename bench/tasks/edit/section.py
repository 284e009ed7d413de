"""What a report says of edits."""

NO_CLIP_SCORE = "the prompt of an edit is an instruction and describes no image"
