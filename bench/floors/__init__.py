"""The least that can be had on this machine, measured in the same run as the thing: ladder, ring,
echo.
"""
