"""cfnshm"""
