"""Operations counted, ceilings measured, and one call traced."""
