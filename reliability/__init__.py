"""What may go wrong, tried on purpose: damaged inputs (`fuzz`), kills and full disks (`faults`), long runs (`soak`)."""
