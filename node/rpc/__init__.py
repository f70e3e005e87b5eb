"""The client port: what people and programs ask of their institution's node.

Every method is reached through ``node.auth.Gate``; what it raises of koinon.errors becomes the status of
the call. Answers come from the last committed state (``node.application``) and the read model.
"""
