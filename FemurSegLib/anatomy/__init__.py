"""What a femur's shape tells: landmarks, axes, angles and regions, from a mask or a closed surface.

bone = Bone.of_mask(labels, grid, RIGHT)
landmarks = find_landmarks(bone)
measure(landmarks)["neck_shaft_angle_deg"].value
"""
