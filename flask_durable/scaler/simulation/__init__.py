"""A queue, a pool and a policy in simulated time: what would a policy have done?"""
