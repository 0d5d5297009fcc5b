"""Operations on the fleet, carried out by one of its controllers at a time."""
